mod instance;
mod split;
mod trial;
mod trouble;
