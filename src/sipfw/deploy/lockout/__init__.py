"""Whether those who are logged in would get in again, and by which packets they came."""
