"""`table inet sipfw`: what `nft` loads and lists."""
