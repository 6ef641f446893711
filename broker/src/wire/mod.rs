//! Frames and shapes: what arrives on a connection before it is believed.

pub(crate) mod frame;
pub(crate) mod shape;
pub(crate) mod shapes;
