//! Keys and values shared between the eBPF programs and user space.
