"""What a worker knows of users and items, kept from the compacted topics."""
