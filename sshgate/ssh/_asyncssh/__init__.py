"""Everything that uses private names of asyncssh."""
