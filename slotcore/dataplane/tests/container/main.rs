//! What real and hostile containers send, over real Unix and TCP sockets.

mod answers;
mod breaks;
mod peer;
mod requests;
