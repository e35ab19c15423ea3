//! Records as they are kept: compressed, and told apart from one another.
//!
//! A frame is `P`, `S`, the format's version, the kind of what follows, two
//! lengths of four bytes each, the lowest first, and that many bytes: those that
//! follow, and those that they unpack to.

use std::{borrow::Cow, sync::Arc};

use crate::{
    continuation::{Artifact, ArtifactId, Planner, has_parent, id_of},
    error::{Error, ErrorKind, Result},
};

/// The version of the format of records.
const VERSION: u8 = 1;
const HEADER: usize = 12;
/// No record is as long: a prompt of ten million ids with its text.
const LONGEST: usize = 256 << 20;
/// Shorter records hardly get shorter.
const PACKED_FROM: usize = 256;
/// Higher levels take several times as long for a few percent.
const LEVEL: i32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Zstd,
    Sealed,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Plain, Self::Zstd, Self::Sealed];
}

/// One frame.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    /// Bytes that the content unpacks to.
    pub(super) length: usize,
    pub(super) content: &'a [u8],
}

pub(super) fn refused(why: &str) -> Error {
    let message = format!("A record of a conversation cannot be used: {why}.");
    Error::new(ErrorKind::RecordRefused, message)
}

/// A frame of `kind` around `content`.
///
/// # Errors
/// `TooLarge`.
pub(super) fn framed(kind: Kind, length: usize, content: &[u8]) -> Result<Vec<u8>> {
    if length.max(content.len()) > LONGEST {
        let what = format!("A record of a conversation is longer than {LONGEST} bytes.");
        return Err(Error::new(ErrorKind::TooLarge, what));
    }
    let mut frame = Vec::with_capacity(HEADER + content.len());
    frame.extend_from_slice(&[b'P', b'S', VERSION, kind as u8]);
    for length in [content.len(), length] {
        frame.extend_from_slice(&(length as u32).to_le_bytes());
    }
    frame.extend_from_slice(content);
    Ok(frame)
}

/// The frames in `bytes`, one after another.
pub(super) fn frames(bytes: &[u8]) -> impl Iterator<Item = Result<Frame<'_>>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest.take().filter(|bytes| !bytes.is_empty())?;
        Some(first_frame(bytes).map(|(frame, behind)| {
            rest = Some(behind);
            frame
        }))
    })
}

fn first_frame(bytes: &[u8]) -> Result<(Frame<'_>, &[u8])> {
    let cut = || refused("it is cut off");
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or_else(cut)?;
    let [b'P', b'S', version, kind, lengths @ ..] = header else {
        return Err(refused("it is none"));
    };
    if *version != VERSION {
        return Err(refused("another version of promptseam wrote it"));
    }
    let kind = Kind::ALL.get(usize::from(*kind));
    let kind = *kind.ok_or_else(|| refused("it is none"))?;
    let (lengths, _) = lengths.as_chunks::<4>();
    let length = |at: usize| u32::from_le_bytes(lengths[at]) as usize;
    if length(1) > LONGEST {
        return Err(refused("it is too long"));
    }
    let (content, rest) = rest.split_at_checked(length(0)).ok_or_else(cut)?;
    let frame = Frame {
        kind,
        length: length(1),
        content,
    };
    Ok((frame, rest))
}

/// The record of `artifact`, compressed where that pays. O(what it added).
///
/// # Errors
/// `TooLarge`; `Internal` for a history that was damaged in memory.
pub fn pack(artifact: &Artifact) -> Result<Vec<u8>> {
    let record = artifact.encode()?;
    if record.len() >= PACKED_FROM {
        let packed = zstd::bulk::compress(&record, LEVEL).map_err(|error| {
            Error::new(ErrorKind::Internal, "a record was not compressed").with_source(error)
        })?;
        if packed.len() < record.len() {
            return framed(Kind::Zstd, record.len(), &packed);
        }
    }
    framed(Kind::Plain, record.len(), &record)
}

fn unpacked<'a>(frame: &Frame<'a>) -> Result<Cow<'a, [u8]>> {
    let record = match frame.kind {
        Kind::Plain => Cow::Borrowed(frame.content),
        Kind::Zstd => {
            let record = zstd::bulk::decompress(frame.content, frame.length);
            Cow::Owned(record.map_err(|error| refused("it is damaged").with_source(error))?)
        }
        Kind::Sealed => return Err(refused("it is encrypted, and the store has no key")),
    };
    if record.len() != frame.length {
        return Err(refused("it is damaged"));
    }
    Ok(record)
}

/// Whether `bytes` are the record of the artifact `id`, and nothing else.
pub(super) fn is_of(bytes: &[u8], id: &ArtifactId) -> bool {
    let mut frames = frames(bytes);
    let record = frames.next().and_then(|frame| frame.ok());
    let record = record.and_then(|frame| unpacked(&frame).ok().map(Cow::into_owned));
    frames.next().is_none() && record.is_some_and(|record| id_of(&record) == *id)
}

/// The artifact `id` from its record and those that it grew from, one after
/// another, the oldest first; or from those behind `known`. O(their length).
///
/// # Errors
/// `RecordRefused` where they are not just that, or not `tenant`'s.
pub fn restore(
    planner: &Planner,
    records: &[u8],
    known: Option<Arc<Artifact>>,
    tenant: &str,
    id: &ArtifactId,
) -> Result<Arc<Artifact>> {
    let mut last = known;
    for frame in frames(records) {
        let record = unpacked(&frame?)?;
        let parent = last.filter(|_| has_parent(&record));
        last = Some(Arc::new(planner.restore(
            &record,
            parent.as_deref(),
            tenant,
        )?));
    }
    last.filter(|artifact| artifact.id() == id)
        .ok_or_else(|| refused("it is not the one that was asked for"))
}
