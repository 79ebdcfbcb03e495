"""One file per defence layer; each has one public function that returns chains or sets."""
