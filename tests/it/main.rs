//! The whole way against a real nats-server: real files, real processes, real kills.
//!
//! The server is `NATS_SERVER_BIN`, else `nats-server` on the PATH; `make test` sees to one. Each test starts its own on a
//! free loopback port with its own directory and ends only what it started.

#![allow(deprecated, reason = "the blocking client is deprecated as a whole")]

mod support;

mod access;
mod check;
mod cluster;
mod collecting;
mod commands;
mod compare;
mod core_mode;
mod core_recorder;
mod database;
mod dead_letters;
mod direct;
mod documented;
mod input;
mod kills;
mod kinds;
mod leaks;
mod limits;
mod links;
mod migrations;
mod paths;
mod poison;
mod presets;
mod profiles;
mod purges;
mod python;
mod queries;
mod recorder;
mod replies;
mod routes;
mod service;
mod stalls;
mod startup;
mod streams;
mod tail;
mod temporary;
mod threads;
mod trials;
