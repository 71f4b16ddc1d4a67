//! The durable relay and store of sealed segments; it holds no key.
