//! The engine against answers that no emulator gives.
