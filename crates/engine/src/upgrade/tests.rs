//! Stories of an upgrade: three nodes, and what each of them says.

use super::*;
