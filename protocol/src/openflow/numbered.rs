//! Types that the standard numbers with 16 bits and names.

macro_rules! numbered {
    ($(#[$meta:meta])* $type:ident: $($name:ident = $number:literal $standard:literal,)*) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum $type {
            $(#[doc = $standard] $name = $number,)*
        }

        impl $type {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The standard's name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $standard),* }
            }

            /// The type with this number, if 1.3.5 has one.
            #[must_use]
            pub const fn from_u16(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

pub(super) use numbered;
