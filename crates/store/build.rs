//! The migrations are embedded in the library: a new one must make it compile again, which the compiler cannot see by itself.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
