"""The benchmark harness: starts contenders on private stores, loads them, checks the account, reports."""
