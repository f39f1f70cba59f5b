//! `-f`: files, directories and standard input with resources.

use std::io::Read;
use std::path::{Path, PathBuf};

use mgmt_client::Document;

use crate::failure::Failure;

/// Name of standard input in messages; YAML, of which JSON is a part.
const STDIN: &str = "stdin";

/// Reads all that `-f` names, in that order; a directory's files by name, those ending in .yaml, .yml and .json.
pub(crate) fn read(names: &[PathBuf]) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    for name in names {
        if name.as_os_str() == "-" {
            let mut text = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut text);
            read.map_err(|error| Failure::new(format!("stdin cannot be read: {error}")))?;
            documents.push(document(STDIN.to_owned(), text)?);
        } else if name.is_dir() {
            for file in files(name)? {
                documents.push(read_file(&file)?);
            }
        } else {
            documents.push(read_file(name)?);
        }
    }
    Ok(documents)
}

/// The files with resources in a directory, by name. Directories below it are not entered.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::new(format!("{}: {error}", directory.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let wanted = path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if wanted && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::new(format!(
            "{}: no resources: expected files ending in .yaml, .yml or .json",
            directory.display()
        )));
    }
    Ok(files)
}

fn read_file(path: &Path) -> Result<Document, Failure> {
    let text = std::fs::read(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    document(path.display().to_string(), text)
}

fn document(file: String, text: Vec<u8>) -> Result<Document, Failure> {
    match String::from_utf8(text) {
        Ok(text) => Ok(Document { file, text }),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let bytes = error.as_bytes();
            let line = 1 + bytes.iter().take(valid).filter(|byte| **byte == b'\n').count();
            let got = bytes.get(valid).copied().unwrap_or_default();
            Err(Failure::new(format!("{file}:{line}: got byte 0x{got:02x}, expected UTF-8 text")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_resource_files_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["b.yaml", "a.json", "c.yml", "README.md"] {
            std::fs::write(dir.path().join(name), name).expect("writes");
        }
        std::fs::create_dir(dir.path().join("d.yaml")).expect("makes a directory");
        let found = read(&[dir.path().to_owned()]).expect("reads");
        let texts: Vec<_> = found.iter().map(|document| document.text.as_str()).collect();
        assert_eq!(texts, ["a.json", "b.yaml", "c.yml"]);
    }

    #[test]
    fn what_is_not_there_not_text_or_empty_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let failure = read(&[dir.path().to_owned()]).expect_err("an empty directory");
        assert!(failure.text().contains("no resources"), "{}", failure.text());
        let failure = read(&[dir.path().join("none.yaml")]).expect_err("no file");
        assert!(failure.text().contains("none.yaml"), "{}", failure.text());
        let bad = dir.path().join("bad.yaml");
        std::fs::write(&bad, b"kind: Network\nname: \xff\n").expect("writes");
        let failure = read(&[bad]).expect_err("no UTF-8");
        assert!(
            failure.text().ends_with("bad.yaml:2: got byte 0xff, expected UTF-8 text"),
            "{}",
            failure.text()
        );
    }
}
