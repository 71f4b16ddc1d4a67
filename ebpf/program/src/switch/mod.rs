//! The OpenFlow switch on switch ports (ADR 17): `enter` sends a frame whose microflow it knows; else it reads it and, where its rule is
//! known and only says where to, sends it; else `walk` (one table at a time), `act` (a list of actions, or the action set), `choose` (a group's bucket) and `leave` go
//! on with it by tail calls. A sensor's frame comes in by `sensor` and is passed or dropped in `leave`; the gateway's own goes
//! through `depart`, table by table.

mod act;
mod choose;
mod depart;
mod enter;
mod leave;
mod maps;
mod microflows;
mod walk;
mod work;

pub(crate) use depart::begin as depart;
pub(crate) use enter::narrow;
pub(crate) use maps::{count_queue, own_mark};
pub(crate) use work::Work;
