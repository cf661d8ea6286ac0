mod instance;
mod split;
mod trouble;
