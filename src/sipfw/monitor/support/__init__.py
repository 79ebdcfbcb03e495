"""What somebody who helps from afar has to see of a host, in one file."""
