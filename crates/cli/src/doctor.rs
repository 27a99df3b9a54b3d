//! `tiger doctor`: looks at the machine, the data directory and the server, and says what to do about what is wrong.

use tiger_kernels::{Cpu, Isa};
use tiger_store::Store;

use crate::args::Global;
use crate::failure::Failure;
use crate::{home, output};

/// Free space under which training and pulling become risky.
const LOW_DISK_BYTES: u64 = 2 << 30;

#[derive(serde::Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    says: String,
}

/// Fails when something is wrong; each line says what and what to do.
pub async fn run(global: &Global) -> Result<(), Failure> {
    let data_dir = home::data_dir(global)?;
    let mut findings = machine();
    findings.push(disk(&data_dir));
    findings.push(packed(&data_dir));
    findings.push(store(&data_dir).await);
    findings.push(server(global).await);
    if global.json {
        output::json(&findings)?;
    } else {
        for finding in &findings {
            println!("{} {:<14} {}", if finding.ok { "ok  " } else { "FAIL" }, finding.what, finding.says);
        }
    }
    match findings.iter().filter(|f| !f.ok).count() {
        0 => Ok(()),
        wrong => Err(Failure::new(format!("{wrong} of {} checks failed", findings.len()))),
    }
}

fn machine() -> Vec<Finding> {
    let cpu = Cpu::new(1, None);
    let isa = match cpu.isa() {
        Isa::Amx => "AMX, and AVX-512 with BF16 and VNNI",
        Isa::Avx512 => "AVX-512 with BF16 and VNNI",
        Isa::Avx2 => "AVX2 with FMA",
        Isa::NeonDot => "NEON with the dot product",
        Isa::Neon => "NEON",
        Isa::Portable => "no vector instructions that the engine knows: it works, slowly; use a processor with AVX2 or NEON",
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let memory = home::free_memory_bytes().map_or_else(|| "unknown".to_owned(), output::bytes);
    vec![
        Finding { what: "processor", ok: cpu.isa() != Isa::Portable, says: isa.to_owned() },
        Finding { what: "threads", ok: true, says: threads.to_string() },
        Finding { what: "free memory", ok: true, says: memory },
    ]
}

fn disk(dir: &std::path::Path) -> Finding {
    let what = "data directory";
    let probe = dir.join(".doctor");
    let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&probe, b"x")).and_then(|()| std::fs::remove_file(&probe));
    if let Err(error) = written {
        return Finding { what, ok: false, says: format!("{}: {error}; give another --data-dir", dir.display()) };
    }
    let free = free_disk_bytes(dir);
    let low = free.is_some_and(|free| free < LOW_DISK_BYTES);
    let room = free.map_or_else(String::new, |free| format!(", {} free", output::bytes(free)));
    Finding { what, ok: !low, says: format!("{}{room}{}", dir.display(), if low { "; make room: trainings need it" } else { "" }) }
}

/// Files that only make the next start faster; those in other checkpoint folders (`--model-dir`) are not known here.
fn packed(dir: &std::path::Path) -> Finding {
    let files = |folder: &std::path::Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = files(&dir.join("models")).chain([dir.join("packed")]);
    let packed =
        folders.flat_map(|folder| files(&folder).collect::<Vec<_>>()).filter(|path| path.extension().is_some_and(|e| e == "packed"));
    let sizes: Vec<u64> = packed.filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).collect();
    let (count, size) = (sizes.len(), output::bytes(sizes.iter().sum()));
    let where_to = format!("*.packed in {0}/models/* and {0}/packed", dir.display());
    Finding {
        what: "packed weights",
        ok: true,
        says: format!("{count} files, {size}: {where_to}; delete them at any time, a start makes them again"),
    }
}

fn free_disk_bytes(dir: &std::path::Path) -> Option<u64> {
    let path = std::ffi::CString::new(dir.as_os_str().as_encoded_bytes()).ok()?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is a C string and the pointer has room for the answer, which is read only after success.
    let stat = unsafe { if libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) != 0 { return None } else { stat.assume_init() } };
    Some(stat.f_bavail * stat.f_frsize)
}

async fn store(dir: &std::path::Path) -> Finding {
    let what = "store";
    let store = match Store::open_shared(dir).await {
        Ok(store) => store,
        Err(error) => return Finding { what, ok: false, says: error.to_string() },
    };
    let checked = store.check().await;
    store.close().await;
    let advice = "keep a copy of the data directory before anything else";
    match checked {
        Ok(report) if report.problems.is_empty() => Finding {
            what,
            ok: true,
            says: format!("{} models, {} revisions, {} blobs, all there", report.models, report.revisions, report.blobs),
        },
        Ok(report) => Finding { what, ok: false, says: format!("{}; {advice}", report.problems.join("; ")) },
        Err(error) => Finding { what, ok: false, says: format!("{error}; {advice}") },
    }
}

async fn server(global: &Global) -> Finding {
    let what = "server";
    let url = format!("{}/readyz", global.base_url.trim_end_matches('/'));
    match reqwest::get(&url).await {
        Ok(answer) if answer.status().is_success() => Finding { what, ok: true, says: format!("ready at {}", global.base_url) },
        Ok(answer) => Finding { what, ok: false, says: format!("{url} answers {}", answer.status()) },
        Err(_) => Finding { what, ok: true, says: format!("none at {}; `tiger serve` starts one", global.base_url) },
    }
}
