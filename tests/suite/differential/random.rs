//! Random statements that change rows.

/// Pseudo-random numbers from a seed (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// A moment in SQL: mostly recent, sometimes at the edge of a step, out of range, or NULL.
    fn moment(&mut self) -> String {
        match self.below(14) {
            0..3 => "now()".to_owned(),
            3..6 => format!("now() - interval '{} seconds'", self.below(4000)),
            6..9 => format!("now() - interval '{} minutes'", self.below(3000)),
            9 => format!("now() - interval '{} hours'", self.below(2400)),
            10 => format!("now() + interval '{} minutes'", self.below(3000)),
            11 => format!(
                "date_trunc('hour', now()) - interval '{} hours'",
                self.of(&[0, 1, 24, 25, 48, 192])
            ),
            12 => format!(
                "date_trunc('day', now()) - interval '{} days'",
                self.of(&[0, 1, 2, 7, 8, 9, 89, 90])
            ),
            _ => (*self.of(&[
                "NULL",
                "'infinity'",
                "'-infinity'",
                "'1900-01-01'",
                "'9999-01-01'",
            ]))
            .to_owned(),
        }
    }

    fn moments(&mut self, most: u64) -> String {
        let moments: Vec<String> = (0..=self.below(most))
            .map(|_| format!("({})", self.moment()))
            .collect();
        moments.join(", ")
    }

    /// A condition that selects some rows.
    fn some(&mut self) -> String {
        let modulus = 7 + self.below(60);
        format!("id % {modulus} = {}", self.below(modulus))
    }

    /// A name in SQL, or what is none. Visits go to the first ones too.
    fn name(&mut self) -> String {
        match self.below(8) {
            0 => "NULL".to_owned(),
            1 => (*self.of(&["'No Name'", "''", "'..'", "'a b'", "repeat('a', 65)"])).to_owned(),
            2 => "repeat('a', 64)".to_owned(),
            _ => format!("'{}'", crate::support::names::name(self.below(12))),
        }
    }

    /// One statement that changes rows with names.
    fn named_statement(&mut self) -> String {
        let (moment, name) = (self.moment(), self.name());
        match self.below(8) {
            0..2 => format!("INSERT INTO acessos (momento, contador) VALUES ({moment}, {name})"),
            2 => format!(
                "INSERT INTO acessos (momento, contador) SELECT m::timestamptz, {name} \
                 FROM (VALUES {}) AS v(m)",
                self.moments(30)
            ),
            3..5 => format!("UPDATE acessos SET contador = {name} WHERE {}", self.some()),
            5 => format!(
                "UPDATE acessos SET contador = {name}, momento = {moment} WHERE {}",
                self.some()
            ),
            6 => format!(
                "DELETE FROM acessos WHERE contador = {name} AND {}",
                self.some()
            ),
            _ => format!(
                "UPDATE acessos SET contador = contador WHERE {}",
                self.some()
            ),
        }
    }

    /// One statement that changes rows; with `named` perhaps their names.
    pub(super) fn statement(&mut self, has_merge: bool, named: bool) -> String {
        if named && self.below(2) == 0 {
            return self.named_statement();
        }
        let moment = self.moment();
        match self.below(16) {
            0..4 => format!("INSERT INTO acessos (momento) VALUES ({moment})"),
            4..6 => format!("INSERT INTO acessos (momento) VALUES {}", self.moments(30)),
            6 => "INSERT INTO acessos DEFAULT VALUES".to_owned(),
            7..9 => format!(
                "UPDATE acessos SET momento = {moment} WHERE {}",
                self.some()
            ),
            9 => format!(
                "UPDATE acessos SET momento = momento - interval '1 hour' WHERE {}",
                self.some()
            ),
            10 => format!("UPDATE acessos SET momento = momento WHERE {}", self.some()),
            11..13 => format!("DELETE FROM acessos WHERE {}", self.some()),
            13 => format!(
                "INSERT INTO acessos (id, momento) OVERRIDING SYSTEM VALUE SELECT id, {moment} \
                 FROM acessos WHERE {} \
                 ON CONFLICT (id) DO UPDATE SET momento = excluded.momento",
                self.some()
            ),
            14 => format!(
                "WITH gone AS (DELETE FROM acessos WHERE {} RETURNING momento) \
                 INSERT INTO acessos (momento) SELECT momento - interval '2 minutes' FROM gone",
                self.some()
            ),
            _ if has_merge => format!(
                "MERGE INTO acessos a USING (SELECT id FROM acessos WHERE {} UNION ALL \
                 SELECT NULL) b ON a.id = b.id \
                 WHEN MATCHED AND a.id % 2 = 0 THEN DELETE WHEN MATCHED THEN \
                 UPDATE SET momento = {moment} \
                 WHEN NOT MATCHED THEN INSERT (momento) VALUES ({moment})",
                self.some()
            ),
            _ => format!(
                "DELETE FROM acessos WHERE momento IS NULL AND {}",
                self.some()
            ),
        }
    }
}
