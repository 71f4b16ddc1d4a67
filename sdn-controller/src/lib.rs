//! The OpenFlow 1.3 controller of a fleet of gateways and switches.
