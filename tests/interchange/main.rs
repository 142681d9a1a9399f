//! The same bucket used by Cellarman and by Barman Cloud, both ways, on MinIO.
#![expect(clippy::panic, reason = "helpers of tests fail the test")]

mod harness;
