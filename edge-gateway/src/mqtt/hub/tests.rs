//! Sessions, delivery, retained messages, wills and QoS 2, with the time given by hand.
