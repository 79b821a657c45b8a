pub mod digest;
pub mod sink;
pub mod tree;
pub mod units;
