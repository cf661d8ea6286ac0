//! How instances are: asked by the gateway itself, beside what the coordinator says and what requests show.
