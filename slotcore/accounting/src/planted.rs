//! Mistakes that tests plant, to show that the checks would find them.
//!
//! Without the feature `planted` no mistake can be chosen: [`Plant::is`] is a constant, and the compiler drops every
//! branch that asks. Those marked "world" are mistakes of what surrounds this crate (etcd's client, the driver, the
//! data plane); the model's world makes them.

macro_rules! planted {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// One mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Planted {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Planted {
            /// Every mistake, with what it does.
            pub const ALL: &'static [(Planted, &'static str)] =
                &[$((Planted::$name, concat!($($doc),+)),)+];
        }
    };
}

planted! {
    /// a deposed Manager's write succeeds (world)
    NoGuard,
    /// a transaction with an unknown outcome is re-read instead of fenced, and applies later (world)
    LateTxn,
    /// an order is sent before its larger share is persisted
    TellFirst,
    /// a smaller share is persisted before the router gave the slots back
    PersistBeforeAck,
    /// a router acknowledges while surplus requests still run
    AckEarly,
    /// an acknowledgement of an older order counts
    AnyAck,
    /// a router obeys an older order
    NoVersion,
    /// a router obeys a deposed Manager
    NoTerm,
    /// a router obeys an order from a closed stream
    NoSession,
    /// an order planned for one stream is sent on its successor
    NewestStream,
    /// holdings that do not answer the Welcome of this term on this stream count
    OldHello,
    /// a Hello leaves out the requests that still run
    HelloHeldOnly,
    /// after a Hello an unfinished lowering is not ordered anew
    HelloMaxOnly,
    /// the slots of a router whose stream broke are granted again at once
    FreeDeadRouter,
    /// a slot is free when its client has left (world)
    FreeOnHangup,
    /// a restarted router is taken for its former self (world)
    SameIncarnation,
    /// a container gets the address of an ended one (world)
    AddressReused,
    /// a router forgets a container without remembering how new its last order was
    ForgottenVersion,
    /// a router that hears of a forgotten container again heeds the older orders' floor only once
    FloorOnce,
    /// a router obeys an order again after it gave slots of it back
    SameVersion,
    /// slots given back before this stream ordered anything stay on the ledger
    GiveBackUnheard,
    /// an order planned before an acknowledgement is sent after it
    OrderOutlivesAck,
    /// a slot whose connection broke is free although its request may run on
    StrandFrees,
    /// a router goes on using slots that it gave back
    GiveBackKept,
}

/// The planted mistake of one value, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plant {
    #[cfg(feature = "planted")]
    bug: Option<Planted>,
}

impl Plant {
    /// Chooses a mistake.
    #[cfg(feature = "planted")]
    pub fn new(bug: Option<Planted>) -> Self {
        Self { bug }
    }

    /// Whether this mistake was chosen.
    #[cfg(feature = "planted")]
    pub fn is(self, bug: Planted) -> bool {
        self.bug == Some(bug)
    }

    #[cfg(not(feature = "planted"))]
    #[inline]
    #[allow(
        clippy::unused_self,
        reason = "the same call with and without the feature"
    )]
    pub(crate) const fn is(self, _bug: Planted) -> bool {
        false
    }
}
