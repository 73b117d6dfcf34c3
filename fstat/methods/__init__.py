"""The methods of `FInfluence`: one file each, from samples to mu and its error."""
