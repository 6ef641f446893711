/// SplitMix64: small, seeded, the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    /// Takes the seed from `TIDEMARK_TEST_SEED`, or `default`; prints it, so that a failure can be repeated.
    pub(crate) fn seeded(default: u64) -> Self {
        let seed = std::env::var("TIDEMARK_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
        println!("seed {seed}; TIDEMARK_TEST_SEED={seed} repeats the draws");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }
}
