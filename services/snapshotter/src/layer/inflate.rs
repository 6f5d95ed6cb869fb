//! Compression of layers, told by the first bytes: media types lie, magic numbers do not.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::bufread::GzDecoder;

/// Bytes of the longest magic number.
const MAGIC: usize = 4;
const BUFFER: usize = 256 * 1024;
/// A zstd frame may ask for a window this large (2^n bytes); RFC 8878 recommends 8 MiB, image tools use up to 128 MiB.
const ZSTD_WINDOW: u32 = 27;

type Source<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// The uncompressed tar within a blob.
pub(crate) enum Inflate<R: Read> {
    Plain(Source<R>),
    Gzip(Box<Gzip<Source<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Source<R>>>),
}

impl<R: Read> Inflate<R> {
    pub(crate) fn new(mut blob: R) -> io::Result<Self> {
        let mut magic = Vec::with_capacity(MAGIC);
        blob.by_ref().take(MAGIC as u64).read_to_end(&mut magic)?;
        let kind: [u8; MAGIC] = std::array::from_fn(|n| magic.get(n).copied().unwrap_or(0));
        let source = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(blob));
        Ok(match kind {
            [0x1f, 0x8b, ..] => Self::Gzip(Box::new(Gzip { member: Some(GzDecoder::new(source)) })),
            // A frame may also begin with one that is to be skipped (RFC 8878, section 3.1.2); a tar never does.
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Self::Zstd(Box::new(decoder))
            }
            _ => Self::Plain(source),
        })
    }
}

impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// One gzip member after the other (RFC 1952, section 2.2), and the zeros that some tools pad the last one with.
pub(crate) struct Gzip<R> {
    /// `None` when all members were read.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let size = member.read(buffer)?;
            if size > 0 || buffer.is_empty() {
                return Ok(size);
            }
            let Some(mut source) = self.member.take().map(GzDecoder::into_inner) else { break };
            match source.fill_buf()?.first() {
                None => {}
                Some(0) => zeros(source)?,
                Some(_) => self.member = Some(GzDecoder::new(source)),
            }
        }
        Ok(0)
    }
}

fn zeros(mut source: impl BufRead) -> io::Result<()> {
    loop {
        let rest = source.fill_buf()?;
        if rest.is_empty() {
            return Ok(());
        }
        if rest.iter().any(|b| *b != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "something else follows the gzip stream"));
        }
        let size = rest.len();
        source.consume(size);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn inflated(blob: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Inflate::new(blob)?.read_to_end(&mut bytes).map(|_| bytes)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn tells_compressions_apart() {
        assert_eq!(inflated(b"plain").unwrap(), b"plain");
        assert_eq!(inflated(b"").unwrap(), b"");
        assert_eq!(inflated(&gzip(b"one")).unwrap(), b"one");
        assert_eq!(inflated(&zstd::encode_all(&b"two"[..], 3).unwrap()).unwrap(), b"two");
    }

    #[test]
    fn several_members_are_one_stream() {
        assert_eq!(inflated(&[gzip(b"one"), gzip(b""), gzip(b"two")].concat()).unwrap(), b"onetwo");
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
        assert_eq!(inflated(&[zstd(b"one"), zstd(b"two")].concat()).unwrap(), b"onetwo");
    }

    #[test]
    fn padding_is_ignored_and_garbage_is_not() {
        assert_eq!(inflated(&[gzip(b"one"), vec![0; 700_000]].concat()).unwrap(), b"one");
        assert!(inflated(&[gzip(b"one"), b"garbage".to_vec()].concat()).is_err());
        assert!(inflated(&[gzip(b"one"), vec![0; 10], b"garbage".to_vec()].concat()).is_err());
        assert!(inflated(&[zstd::encode_all(&b"two"[..], 3).unwrap(), b"garbage".to_vec()].concat()).is_err());
    }

    #[test]
    fn truncation_is_an_error() {
        let whole = gzip(&[7; 10_000]);
        assert!(inflated(&whole[..whole.len() - 5]).is_err());
    }
}
