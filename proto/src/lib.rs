//! The contracts between berth's parts: messages, clients and servers generated from the `.proto` files beside this
//! crate. Nothing is written by hand here but how secrets are shown (not at all); the meaning of every field is said in the
//! `.proto` file.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::large_futures)]

/// `berth.*`: our own APIs.
pub mod berth {
    /// Images and the content they are made of.
    pub mod image {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("berth.image.v1");

            impl std::fmt::Debug for Auth {
                /// Who, and none of the secrets.
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.debug_struct("Auth").field("username", &self.username).finish_non_exhaustive()
                }
            }
        }
    }
    /// The registry-proxy's administration.
    pub mod registry {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("berth.registry.v1");
        }
    }
    /// Containers, exec, attach, logs, networks.
    pub mod runtime {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("berth.runtime.v1");
        }
    }
    /// Layers beneath the snapshots.
    pub mod snapshotter {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("berth.snapshotter.v1");
        }
    }
}

/// `containerd.*`: the APIs we share with containerd.
pub mod containerd {
    /// Types used by several services.
    pub mod types {
        tonic::include_proto!("containerd.types");
    }
    /// Services.
    pub mod services {
        /// Snapshots.
        pub mod snapshots {
            /// Version 1.
            pub mod v1 {
                tonic::include_proto!("containerd.services.snapshots.v1");
            }
        }
    }
}
