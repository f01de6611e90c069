//! End-to-end tests against a real nats-server: real files, real processes, real kills.
//!
//! The server is `NATS_SERVER_BIN`, else `nats-server` on the PATH; `make test` provides one. Each test starts its own on a
//! free loopback port with its own directory and ends only what it started.

#![allow(deprecated, reason = "the blocking client is deprecated as a whole")]

mod support;

mod access;
mod acknowledgements;
mod agreement;
mod check;
mod closing;
mod cluster;
mod collecting;
mod commands;
mod compare;
mod config_command;
mod consumers;
mod copies;
mod core_mode;
mod core_recorder;
mod database;
mod dead_letters;
mod delete_markers;
mod deletions;
mod direct;
mod documented;
mod embedding;
mod epochs;
mod faulty_servers;
mod headers;
mod infer;
mod input;
mod kills;
mod kinds;
mod leaks;
mod left_behind;
mod limits;
mod links;
mod log_format;
mod logs;
mod manual;
mod memory;
mod migrations;
mod names;
mod numbering;
mod observe;
mod own_server;
mod packaging;
mod page;
mod paths;
mod permissions;
mod poison;
mod presets;
mod profiles;
mod publish;
mod purges;
mod python;
mod queries;
mod readers;
mod readiness;
mod recorder;
mod reload;
mod replies;
mod routes;
mod secrets;
mod service;
mod settings;
mod sharing;
mod stalls;
mod starts;
mod startup;
mod status;
mod storms;
mod streams;
mod subjects;
mod systemd;
mod tail;
mod temporary;
mod terminal;
mod test_command;
mod threads;
mod timeouts;
mod tls;
mod ways_out;
