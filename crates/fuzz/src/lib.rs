//! Whatever reads bytes from outside, given any bytes: each target runs the seeds in
//! `corpus/<target>`, and then as many damaged ones as the environment variable `FUZZ` says.
//!
//! A target has a function that checks one input: it must not panic, and holds whatever the code
//! promises about all inputs. `input` makes inputs from seeds; the same seed in `SEED` makes the
//! same ones. What fails is written into the corpus, so that it is run again until it passes, and
//! ever after.

#![cfg(test)]

mod dynamodb;
mod get_records;
mod get_records_cbor;
mod input;
mod json;
mod leases;
mod request;
mod state_file;
mod unpack;
