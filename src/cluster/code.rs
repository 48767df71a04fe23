//! What the functions run: this very executable, or the one of `--lambda-binary`, zipped as `bootstrap`.

use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use object::Endianness;
use object::elf::{EM_AARCH64, EM_X86_64, ET_DYN, ET_EXEC, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, System, ZipWriter};

use super::names::VERSION;
use crate::aws::Aws;

/// What a custom runtime's executable is called, in a function's zip or in a layer's.
pub const BOOTSTRAP: &str = "bootstrap";
/// Where the functions run.
pub const RUNTIME: &str = "provided.al2023";
/// The C library there. Source: Amazon Linux 2023 release notes.
const RUNTIME_GLIBC: Glibc = Glibc(2, 34);
/// What one request may carry. Source: Lambda Developer Guide, "Lambda quotas".
const MAX_ZIPPED: usize = 50 * 1024 * 1024;
/// What function and layers may have together. Source: as above.
const MAX_UNZIPPED: usize = 250 * 1024 * 1024;
/// Of the nine levels the one with which making and sending together take least: the next one wins 0.6 % for a fifth
/// more time, the one before saves a tenth for 2 %.
const DEFLATE_LEVEL: i64 = 5;

/// Beside the program in a release's archive for a system whose own executables Lambda does not run.
const CARRIED: &str = "wekactl-lambda-x86_64";

/// Stands in every wekactl, so that one of another version, or another program, is known for what it is.
const MARKER: &str = concat!("wekactl-code:", env!("CARGO_PKG_VERSION"), ";");
/// Keeps it in the executable, in one piece, whatever the compiler makes of the code that looks for it.
#[used]
static MARKED: [u8; MARKER.len()] = {
    let mut bytes = [0; MARKER.len()];
    bytes.copy_from_slice(MARKER.as_bytes());
    bytes
};

/// A version of the GNU C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Glibc(u32, u32);

impl std::fmt::Display for Glibc {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.0, self.1)
    }
}

/// The processors that Lambda has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// AMD and Intel.
    X86,
    /// Graviton.
    Arm,
}

impl Architecture {
    /// Lambda's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "arm64",
        }
    }

    fn loader(self) -> &'static str {
        match self {
            Self::X86 => "/lib64/ld-linux-x86-64.so.2",
            Self::Arm => "/lib/ld-linux-aarch64.so.1",
        }
    }
}

/// An executable that can not be the functions' code.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what they are")]
pub enum Unfit {
    #[error("{} is no 64-bit Linux executable, and Lambda runs nothing else: name one with --lambda-binary", path.display())]
    NotLinux { path: PathBuf },
    #[error("{} is built for a processor that Lambda does not have: name one for x86_64 or arm64 with --lambda-binary", path.display())]
    Architecture { path: PathBuf },
    #[error("{} is no wekactl: name one of version {VERSION} with --lambda-binary", path.display())]
    NotWekactl { path: PathBuf },
    #[error("{} is wekactl {version}, and this is {VERSION}: name one of this version with --lambda-binary", path.display())]
    OtherVersion { path: PathBuf, version: String },
    #[error("{} would not start in Lambda's {RUNTIME}: {why}; name one that does with --lambda-binary", path.display())]
    WouldNotStart { path: PathBuf, why: String },
    #[error("{} is too large for Lambda: {size} bytes {form}, at most {limit}; name a smaller one, stripped of debug information, with --lambda-binary", path.display())]
    TooLarge {
        path: PathBuf,
        size: usize,
        form: &'static str,
        limit: usize,
    },
}

/// An executable that has been looked at. Zipping waits until something asks for it.
pub struct Code {
    /// Where it was read.
    pub path: PathBuf,
    /// Of the executable, not of its zip; 64 hexadecimal digits.
    pub sha256: String,
    /// What it runs on.
    pub architecture: Architecture,
    /// Kept: what is sent is what was hashed, also where the file is replaced meanwhile.
    content: Arc<Vec<u8>>,
    zip: OnceCell<Arc<Vec<u8>>>,
}

impl Code {
    /// Reads and judges the executable: this one, or on another system the one that is carried beside it, unless
    /// `--lambda-binary` names another.
    ///
    /// # Errors
    /// [`Unfit`]. Where the calls do not go to AWS itself, one that Amazon Linux would not start is only warned of.
    pub async fn read(aws: &Aws, lambda_binary: Option<&Path>) -> Result<Arc<Self>> {
        let (path, is_this) = if let Some(path) = lambda_binary {
            (path.to_owned(), false)
        } else {
            let this = std::env::current_exe().context("asking for the path of this program")?;
            let runs_in_lambda = cfg!(target_os = "linux");
            match carried_beside(&this).filter(|_| !runs_in_lambda) {
                Some(carried) => (carried, false),
                None => (this, true),
            }
        };
        let (code, doubt) = tokio::task::spawn_blocking(move || {
            let (code, doubt) = load(path)?;
            if !is_this {
                is_this_version(&code.path, &code.content)?;
            }
            anyhow::Ok((code, doubt))
        })
        .await??;
        if let Some(doubt) = doubt {
            if !aws.has_endpoint_override() {
                return Err(doubt.into());
            }
            aws.run.warning(doubt.to_string());
        }
        Ok(Arc::new(code))
    }

    /// The zip: made once, however often it is asked for.
    ///
    /// # Errors
    /// [`Unfit::TooLarge`].
    pub async fn zip(&self) -> Result<Arc<Vec<u8>>> {
        let make = || async {
            let content = Arc::clone(&self.content);
            let zip = tokio::task::spawn_blocking(move || bootstrap_zip(&content)).await??;
            fits(&self.path, zip.len(), "zipped", MAX_ZIPPED)?;
            anyhow::Ok(Arc::new(zip))
        };
        self.zip.get_or_try_init(make).await.map(Arc::clone)
    }

    /// Begins with the zip while AWS answers something else. Who asks for it later gets it, or its failure.
    pub fn start_zip(self: &Arc<Self>) {
        let code = Arc::clone(self);
        tokio::spawn(async move { drop(code.zip().await) });
    }
}

/// The executable for Lambda that came with this program, also where the program is started by a link to it.
fn carried_beside(this: &Path) -> Option<PathBuf> {
    let carried = this.canonicalize().ok()?.with_file_name(CARRIED);
    carried.is_file().then_some(carried)
}

fn load(path: PathBuf) -> Result<(Code, Option<Unfit>)> {
    let content = std::fs::read(&path)
        .with_context(|| format!("reading the executable {}", path.display()))?;
    let (architecture, doubt) = judge(&path, &content)?;
    fits(&path, content.len(), "unzipped", MAX_UNZIPPED)?;
    let sha256 = hex(&Sha256::digest(&content));
    let code = Code {
        path,
        sha256,
        architecture,
        content: Arc::new(content),
        zip: OnceCell::new(),
    };
    Ok((code, doubt))
}

fn fits(path: &Path, size: usize, form: &'static str, limit: usize) -> Result<(), Unfit> {
    if size <= limit {
        return Ok(());
    }
    Err(Unfit::TooLarge {
        path: path.to_owned(),
        size,
        form,
        limit,
    })
}

/// That an executable is a wekactl of this version: the functions of one cluster do not speak two versions.
fn is_this_version(path: &Path, content: &[u8]) -> Result<(), Unfit> {
    let path = path.to_owned();
    match version_in(content) {
        Some(version) if version == VERSION => Ok(()),
        Some(version) => Err(Unfit::OtherVersion { path, version }),
        None => Err(Unfit::NotWekactl { path }),
    }
}

/// The version that the marker in an executable tells.
fn version_in(content: &[u8]) -> Option<String> {
    let marker = std::hint::black_box(&MARKED);
    let end = marker.iter().position(|byte| *byte == b':')? + 1;
    let prefix = &marker[..end];
    let is_of_version = |byte: &u8| byte.is_ascii_alphanumeric() || b".-+".contains(byte);
    let mut starts = content
        .windows(prefix.len())
        .enumerate()
        .filter(|(_, bytes)| bytes[0] == prefix[0] && *bytes == prefix);
    starts.find_map(|(start, _)| {
        let rest = &content[start + prefix.len()..];
        let length = rest.iter().position(|byte| !is_of_version(byte))?;
        let is_version = length > 0 && rest[length] == b';' && rest[0].is_ascii_digit();
        is_version.then(|| String::from_utf8_lossy(&rest[..length]).into_owned())
    })
}

/// What the executable runs on, and why Amazon Linux would not start it, if so.
fn judge(path: &Path, content: &[u8]) -> Result<(Architecture, Option<Unfit>), Unfit> {
    let path = path.to_owned();
    let Ok(Some(elf)) = read_elf(content) else {
        return Err(Unfit::NotLinux { path });
    };
    let Some(architecture) = elf.architecture else {
        return Err(Unfit::Architecture { path });
    };
    let why = match (elf.loader, elf.glibc) {
        (Some(loader), _) if loader != architecture.loader() => {
            Some(format!("it wants the loader {loader}, which is not there"))
        }
        (_, Some(glibc)) if glibc > RUNTIME_GLIBC => Some(format!(
            "it needs version {glibc} of the GNU C library, and there is {RUNTIME_GLIBC}"
        )),
        _ => None,
    };
    Ok((
        architecture,
        why.map(|why| Unfit::WouldNotStart { path, why }),
    ))
}

/// What an executable says of itself.
struct Elf {
    architecture: Option<Architecture>,
    /// `None`: it is linked statically.
    loader: Option<String>,
    /// The highest version it needs; `None`: none.
    glibc: Option<Glibc>,
}

/// `None`: an object file, a library's dump or the like.
fn read_elf(content: &[u8]) -> object::Result<Option<Elf>> {
    let header = FileHeader64::<Endianness>::parse(content)?;
    let endian = header.endian()?;
    if ![ET_EXEC, ET_DYN].contains(&header.e_type(endian)) {
        return Ok(None);
    }
    let machine = header.e_machine(endian);
    let architecture = match endian {
        Endianness::Little if machine == EM_X86_64 => Some(Architecture::X86),
        Endianness::Little if machine == EM_AARCH64 => Some(Architecture::Arm),
        _ => None,
    };
    let mut loader = None;
    for segment in header.program_headers(endian, content)? {
        if let Some(path) = segment.interpreter(endian, content)? {
            loader = Some(String::from_utf8_lossy(path).into_owned());
        }
    }
    let mut glibc = None;
    let sections = header.sections(endian, content)?;
    if let Some((mut needs, strings)) = sections.gnu_verneed(endian, content)? {
        let strings = sections.strings(endian, content, strings)?;
        while let Some((_, mut versions)) = needs.next()? {
            while let Some(version) = versions.next()? {
                glibc = glibc.max(glibc_version(version.name(endian, strings)?));
            }
        }
    }
    Ok(Some(Elf {
        architecture,
        loader,
        glibc,
    }))
}

/// `GLIBC_2.34` and `GLIBC_2.3.4`; other names are no versions, but for one that came with a version.
fn glibc_version(name: &[u8]) -> Option<Glibc> {
    if name == b"GLIBC_ABI_DT_RELR" {
        return Some(Glibc(2, 36));
    }
    let version = std::str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?;
    let mut numbers = version.split('.');
    Some(Glibc(
        numbers.next()?.parse().ok()?,
        numbers.next()?.parse().ok()?,
    ))
}

fn bootstrap_zip(content: &[u8]) -> Result<Vec<u8>> {
    let options = options()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(DEFLATE_LEVEL))
        .unix_permissions(0o755);
    zip_one(BOOTSTRAP, content, options)
}

/// A function's own zip: it may not be empty, and must not hold a `bootstrap`, which would outrank the layer's.
/// Stored, not deflated: the same bytes for ever, whatever compresses.
///
/// # Errors
/// None that can be thought of: it is written to memory.
pub fn marker_zip() -> Result<Vec<u8>> {
    let text = "The code is this function's layer.\n";
    let options = options()
        .compression_method(CompressionMethod::Stored)
        .unix_permissions(0o644);
    zip_one("README", text.as_bytes(), options)
}

/// No date and no system of its own: the same content is the same zip.
fn options() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .last_modified_time(DateTime::DEFAULT)
        .system(System::Unix)
}

fn zip_one(name: &str, content: &[u8], options: SimpleFileOptions) -> Result<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file(name, options)?;
    zip.write_all(content)?;
    Ok(zip.finish()?.into_inner())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn glibc_versions_are_numbers() {
        for (name, version) in [
            ("GLIBC_2.34", Some(Glibc(2, 34))),
            ("GLIBC_2.2.5", Some(Glibc(2, 2))),
            ("GLIBC_PRIVATE", None),
            ("GLIBC_ABI_DT_RELR", Some(Glibc(2, 36))),
            ("GCC_3.0", None),
        ] {
            assert_eq!(glibc_version(name.as_bytes()), version, "{name}");
        }
        assert!(Glibc(2, 4) < RUNTIME_GLIBC && Glibc(2, 38) > RUNTIME_GLIBC);
    }

    #[test]
    fn what_lambda_can_not_run_is_refused() {
        let path = Path::new("/tmp/wekactl");
        // The header of a 64-bit executable, little-endian, with nothing behind it.
        let elf = |machine: u8| {
            let mut header = b"\x7fELF\x02\x01\x01".to_vec();
            header.resize(64, 0);
            header[16] = 2;
            header[18] = machine;
            header[20] = 1;
            header
        };
        let refused = |content: &[u8]| judge(path, content).unwrap_err().to_string();
        for content in [
            &b"#!/bin/sh\n"[..],
            b"MZ",
            b"",
            b"\xcf\xfa\xed\xfe",
            b"\x7fELF",
        ] {
            assert!(refused(content).contains("no 64-bit Linux executable"));
        }
        let riscv = refused(&elf(243));
        assert!(riscv.contains("processor") && riscv.contains("--lambda-binary"));
        for (machine, architecture) in [(62, Architecture::X86), (183, Architecture::Arm)] {
            let (judged, doubt) = judge(path, &elf(machine)).unwrap();
            assert_eq!(judged, architecture);
            assert!(doubt.is_none(), "linked statically");
        }
    }

    #[test]
    fn another_program_and_another_version_are_told_apart() {
        let path = Path::new("/tmp/wekactl");
        let marked = |version: &str| format!("\x7fELF wekactl-code: wekactl-code:{version};\0");
        assert!(is_this_version(path, marked(VERSION).as_bytes()).is_ok());
        let said = |content: &[u8]| is_this_version(path, content).unwrap_err().to_string();
        assert_eq!(
            said(marked("1.9.3").as_bytes()),
            format!(
                "/tmp/wekactl is wekactl 1.9.3, and this is {VERSION}: name one of this version with --lambda-binary"
            )
        );
        for content in [&b"\x7fELF"[..], b"wekactl-code:;", b"wekactl-code:1\0"] {
            assert!(said(content).contains("is no wekactl"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_an_archive_carries_for_lambda_is_found_beside_the_program_and_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path().canonicalize().unwrap().join("wekactl-2");
        let program = archive.join("wekactl");
        let link = directory.path().join("wekactl");
        std::fs::create_dir(&archive).unwrap();
        std::fs::write(&program, "").unwrap();
        std::os::unix::fs::symlink(&program, &link).unwrap();
        assert_eq!(carried_beside(&program), None);
        let carried = archive.join("wekactl-lambda-x86_64");
        std::fs::write(&carried, "").unwrap();
        assert_eq!(carried_beside(&program), Some(carried.clone()));
        assert_eq!(carried_beside(&link), Some(carried));
    }

    #[test]
    fn sizes_are_limited() {
        let path = Path::new("/tmp/wekactl");
        assert!(fits(path, MAX_ZIPPED, "zipped", MAX_ZIPPED).is_ok());
        let error = fits(path, MAX_ZIPPED + 1, "zipped", MAX_ZIPPED).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/tmp/wekactl is too large for Lambda: 52428801 bytes zipped, at most 52428800; \
             name a smaller one, stripped of debug information, with --lambda-binary"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_executable_is_zipped_as_bootstrap() {
        let (code, _) = load(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(
            code.architecture == Architecture::Arm,
            cfg!(target_arch = "aarch64")
        );
        assert_eq!(code.sha256.len(), 64);
        assert_eq!(version_in(&code.content).as_deref(), Some(VERSION));
        let zipped = bootstrap_zip(&code.content[..4096]).unwrap();
        let mut archive = zip::ZipArchive::new(Cursor::new(&zipped)).unwrap();
        assert_eq!(archive.len(), 1);
        let mut file = archive.by_name(BOOTSTRAP).unwrap();
        assert_eq!(file.unix_mode().unwrap() & 0o777, 0o755);
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(content, code.content[..4096]);
    }

    #[test]
    fn the_marker_never_changes_and_is_no_bootstrap() {
        let zip = marker_zip().unwrap();
        assert_eq!(
            hex(&Sha256::digest(&zip)),
            "f8df7a6f348d74604eeebdd4a56899b88d70e3f310dfd30cd3bf936ddb7776ad"
        );
        assert!(!zip.windows(9).any(|window| window == BOOTSTRAP.as_bytes()));
    }
}
