//! visitas, a visit counter: this file is the map of the crate.
