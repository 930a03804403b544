"""From files to an object on a device: accounting, eviction, loading, leases."""
