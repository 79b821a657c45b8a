pub mod digest;
pub mod erofs;
pub mod layer;
pub mod sink;
pub mod tree;
pub mod units;
