"""What a file's names and shapes say of a network that passes have changed; the user's module made to fit."""
