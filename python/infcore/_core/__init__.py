"""The compiled core: one small extension per stage over libinfcore.so. Import from infcore, not from here."""
