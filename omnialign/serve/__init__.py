"""The service over a library, and its page; `omnialign serve LIBRARY` runs it."""
