//! Servers that answer always the same, in a process of their own as the service is: the peers that
//! the service's own work is seen beside.

pub(crate) mod axum;
pub(crate) mod tonic;
