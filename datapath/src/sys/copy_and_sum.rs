//! Copying and summing in one pass with the vector instructions this processor has.
//!
//! The compiler makes of [`checksum::copy_and_sum`] what every x86-64 can do, 16 bytes at a time. Here
//! are wider ones, chosen once at run time; each gives the same bytes and the same checksum, which a
//! property test holds.

use crate::ip::checksum::{self, CopyAndSum, Sum};

/// The fastest that runs here.
#[must_use]
pub fn fastest() -> CopyAndSum {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        return wide::with_avx2;
    }
    checksum::copy_and_sum
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use core::arch::x86_64::{
        __m256i, _mm256_add_epi64, _mm256_and_si256, _mm256_extract_epi64, _mm256_loadu_si256,
        _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_srli_epi64, _mm256_storeu_si256,
    };

    use super::{Sum, checksum};

    const VECTOR_LEN: usize = size_of::<__m256i>();
    /// Bytes a turn of the loop: as many vectors as keep the adders busy.
    const BLOCK_LEN: usize = 4 * VECTOR_LEN;

    /// Runs [`avx2`] where [`super::fastest`] has found that it can.
    pub(super) fn with_avx2(from: &[u8], to: &mut [u8]) -> Sum {
        // SAFETY: only `fastest` hands this function out, and only if the processor has AVX2.
        unsafe { avx2(from, to) }
    }

    #[target_feature(enable = "avx2")]
    fn avx2(from: &[u8], to: &mut [u8]) -> Sum {
        let len = from.len().min(to.len());
        let (blocks, rest) = from.get(..len).unwrap_or_default().as_chunks::<BLOCK_LEN>();
        let (to_blocks, to_rest) = to
            .get_mut(..len)
            .unwrap_or_default()
            .as_chunks_mut::<BLOCK_LEN>();
        // Sums of the first and of the second 32-bit words of 64: no carry for 2^32 rounds.
        let mut low = [_mm256_setzero_si256(); 4];
        let mut high = low;
        for (block, to_block) in blocks.iter().zip(to_blocks) {
            let (vectors, _) = block.as_chunks::<VECTOR_LEN>();
            let (to_vectors, _) = to_block.as_chunks_mut::<VECTOR_LEN>();
            for (((vector, to_vector), low), high) in
                vectors.iter().zip(to_vectors).zip(&mut low).zip(&mut high)
            {
                add(vector, to_vector, low, high);
            }
        }
        let mut sum = total(low).add_sum(total(high));
        let (vectors, rest) = rest.as_chunks::<VECTOR_LEN>();
        let (to_vectors, to_rest) = to_rest.as_chunks_mut::<VECTOR_LEN>();
        let (mut low, mut high) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for (vector, to_vector) in vectors.iter().zip(to_vectors) {
            add(vector, to_vector, &mut low, &mut high);
        }
        sum = sum.add_sum(total([low])).add_sum(total([high]));
        sum.add_sum(checksum::copy_and_sum(rest, to_rest))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(
        from: &[u8; VECTOR_LEN],
        to: &mut [u8; VECTOR_LEN],
        low: &mut __m256i,
        high: &mut __m256i,
    ) {
        // SAFETY: the array has as many bytes as are read, and the load asks for no alignment.
        let vector = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
        // SAFETY: the array has as many bytes as are written, and the store asks for no alignment.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), vector) };
        let first_words = _mm256_and_si256(vector, _mm256_set1_epi64x(0xffff_ffff));
        *low = _mm256_add_epi64(*low, first_words);
        *high = _mm256_add_epi64(*high, _mm256_srli_epi64::<32>(vector));
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn total<const N: usize>(vectors: [__m256i; N]) -> Sum {
        let mut sum = _mm256_setzero_si256();
        for vector in vectors {
            sum = _mm256_add_epi64(sum, vector);
        }
        [
            _mm256_extract_epi64::<0>(sum),
            _mm256_extract_epi64::<1>(sum),
            _mm256_extract_epi64::<2>(sum),
            _mm256_extract_epi64::<3>(sum),
        ]
        .into_iter()
        .map(|lane| Sum::from_native(lane.cast_unsigned()))
        .fold(Sum::ZERO, Sum::add_sum)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_does_what_the_plain_one_does(
            bytes in prop::collection::vec(any::<u8>(), 0..3000),
            from_at in 0..40_usize,
            to_at in 0..40_usize,
            to_len in 0..3000_usize,
        ) {
            let from = &bytes[from_at.min(bytes.len())..];
            let mut to = vec![0xa5; to_at + to_len];
            let mut plain = to.clone();
            let sum = fastest()(from, &mut to[to_at..]);
            let plain_sum = checksum::copy_and_sum(from, &mut plain[to_at..]);
            prop_assert_eq!(sum.fold(), plain_sum.fold());
            prop_assert_eq!(to, plain);
        }
    }

    #[test]
    fn sums_that_carry_most_are_right() {
        for len in (0..=520).chain([1359, 1360, 65_495]) {
            let from = vec![0xff; len];
            let mut to = vec![0; len];
            let sum = fastest()(&from, &mut to);
            assert_eq!(sum.fold(), Sum::ZERO.add_bytes(&from).fold(), "{len}");
            assert_eq!(to, from);
        }
    }
}
