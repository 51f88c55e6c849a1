"""The ledger: every request counted once, on disk within a second, in a database soon after."""
