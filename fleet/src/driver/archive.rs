//! `osiris ledger archive`: a replica's blocks and pages in a file of their own, and the check of such a file.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use osiris_ledger::Ledger;

use super::{error::DriverError, open::offer_pages, store::Journal};
use crate::{
    api::codes,
    archive::{self, ArchiveError, Archived},
};

/// Writes all blocks and pages of a data folder to a new file, durably. A node may run meanwhile: what is durable
/// when this begins is in the file. A file of that name is left alone, and an unfinished one never has it.
///
/// # Errors
/// [`DriverError`] where the folder lacks something, or the file is there or cannot be written.
pub fn archive(data: &Path, file: &Path) -> Result<Archived, DriverError> {
    let found = Journal::inspect(data)?;
    let mut ledger = Ledger::new(found.fleet);
    ledger.leave_out_document();
    let unread = offer_pages(&mut ledger, &data.join("library"), &found.pages);
    let refused = ledger.replay_all(&found.entries).into_iter().filter(Result::is_err).count();
    ledger.take_offered();
    ledger.publish();
    let waiting = ledger.early().0;
    if refused + waiting + unread.len() > 0 || !ledger.is_founded() {
        return Err(DriverError::new(
            codes::CONFLICT,
            format!(
                "The folder {} lacks blocks or pages that others of it name, so an archive of it could not be checked.",
                data.display()
            ),
            "`osiris ledger verify` says what is missing; `osiris sync` brings back what other members hold.",
        ));
    }
    let pages: Vec<_> = ledger.pages().cloned().collect();
    let blocks = ledger.in_order();
    let part = part(file)?;
    let written = write(&part, |out| archive::write(out, &found.fleet, &pages, &blocks)).and_then(|()| {
        // A link takes no name that is taken, where a rename would.
        fs::hard_link(&part, file)?;
        File::open(folder(file))?.sync_all()
    });
    // Half written or not, this name has done its work.
    let _ = fs::remove_file(&part);
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => there(file),
        _ => DriverError::io("The archive cannot be written to", file, &error),
    })?;
    verify_archive(file)
}

fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let mut out = BufWriter::new(file);
    fill(&mut out)?;
    out.flush()?;
    out.get_ref().sync_all()
}

/// The name of the file while it is being written.
fn part(file: &Path) -> Result<PathBuf, DriverError> {
    if file.symlink_metadata().is_ok() {
        return Err(there(file));
    }
    let Some(name) = file.file_name() else {
        let message = format!("{} names no file.", file.display());
        return Err(DriverError::new(codes::BAD_REQUEST, message, "Give the archive's name."));
    };
    let mut part = std::ffi::OsString::from(".");
    part.push(name);
    part.push(format!(".{}.part", std::process::id()));
    Ok(folder(file).join(part))
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn there(file: &Path) -> DriverError {
    DriverError::new(
        codes::CONFLICT,
        format!("The file {} is there already and is left alone.", file.display()),
        "Give another name.",
    )
}

/// Judges an archive as if a stranger had sent all of it.
///
/// # Errors
/// [`DriverError`] with the first thing that does not hold.
pub fn verify_archive(file: &Path) -> Result<Archived, DriverError> {
    // A pipe would be waited for without end.
    let opened = osiris_runtime::open_regular(File::options().read(true), file)
        .map_err(|error| DriverError::io("The archive cannot be read from", file, &error))?;
    archive::verify(&mut BufReader::new(opened)).map_err(|error| {
        let code = match error {
            ArchiveError::Read(_) => codes::INTERNAL,
            _ => codes::FAILED,
        };
        DriverError::new(
            code,
            format!("The archive {} is not sound: {error}.", file.display()),
            "Use another copy of it, or make a new one: `osiris ledger archive FILE`.",
        )
    })
}
