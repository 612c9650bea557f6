"""Results and identities on disk: every file is either absent or complete, and says what it was made from."""
