"""Looking at a recurrent network: where its gradient comes from, and why it vanishes or explodes."""
