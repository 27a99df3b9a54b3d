//! The page is embedded in the library: new files of it must make it compile again, which the compiler cannot see by itself.

fn main() {
    println!("cargo:rerun-if-changed=../../playground/dist");
}
