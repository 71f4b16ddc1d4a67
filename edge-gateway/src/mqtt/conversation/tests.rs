//! Every transition, with the time given by hand.
