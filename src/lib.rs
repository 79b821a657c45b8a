pub mod digest;
pub mod erofs;
pub mod sink;
pub mod tree;
pub mod units;
