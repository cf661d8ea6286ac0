//! The one place where errors become gRPC codes. Every message says what to do next.

use crate::artifacts::ArtifactError;
use crate::authority::AuthorityError;
use crate::records::RecordsError;
use crate::secrets::SecretsError;
use crate::store::StoreError;
use baton_model::id::IdError;
use std::error::Error;
use tonic::{Code, Status};

/// Why a call was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The request itself is wrong; the same request is always refused.
    #[error("{0}")]
    Invalid(String),
    /// What it is about does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Something else is there under that name.
    #[error("{0}")]
    AlreadyExists(String),
    /// It cannot be done as things stand; the message says what has to be done before.
    #[error("{0}")]
    NotNow(String),
    /// The caller may not do this.
    #[error("{0}")]
    Denied(String),
    /// Others changed the same thing again and again; nothing was done, trying again is right.
    #[error("{0}")]
    Contended(String),
    /// What is needed is out of reach for now.
    #[error("{0}")]
    Unavailable(String),
    /// A limit was reached.
    #[error("{0}")]
    Exhausted(String),
    /// The store or a record in it.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// An artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A token, a name or a certificate.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A secret.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// A mistake of ours.
    #[error("{0}; this is a defect in Baton, please report it")]
    Defect(String),
}

impl From<IdError> for Refusal {
    fn from(error: IdError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::Invalid(_) => Code::InvalidArgument,
            Refusal::NotFound(_) => Code::NotFound,
            Refusal::AlreadyExists(_) => Code::AlreadyExists,
            Refusal::NotNow(_) => Code::FailedPrecondition,
            Refusal::Denied(_) => Code::PermissionDenied,
            Refusal::Contended(_) => Code::Aborted,
            Refusal::Unavailable(_) => Code::Unavailable,
            Refusal::Exhausted(_) => Code::ResourceExhausted,
            Refusal::Records(error) => code_of_records(error),
            Refusal::Artifact(error) => code_of_artifact(error),
            Refusal::Authority(error) => code_of_authority(error),
            Refusal::Secrets(error) => code_of_secrets(error),
            Refusal::Defect(_) => Code::Internal,
        };
        if matches!(code, Code::Internal | Code::DataLoss) {
            tracing::error!(error = &refusal as &dyn Error, "a call failed");
        }
        Self::new(code, with_sources(&refusal))
    }
}

fn code_of_secrets(error: &SecretsError) -> Code {
    match error {
        SecretsError::Unknown(_) => Code::NotFound,
        SecretsError::InUse { .. } => Code::FailedPrecondition,
        SecretsError::Size(_) => Code::InvalidArgument,
        SecretsError::TooMany(_) => Code::ResourceExhausted,
        SecretsError::Cipher(_) => Code::DataLoss,
        SecretsError::File { .. } | SecretsError::KeyMissing { .. } => Code::Internal,
        SecretsError::Records(error) => code_of_records(error),
    }
}

fn code_of_records(error: &RecordsError) -> Code {
    match error {
        RecordsError::Record(_) => Code::DataLoss,
        RecordsError::Store(error) => code_of_store(error),
    }
}

fn code_of_store(error: &StoreError) -> Code {
    match error {
        StoreError::Conflict { .. } => Code::Aborted,
        StoreError::Full { .. } | StoreError::Busy(_) | StoreError::Refused(_) => Code::ResourceExhausted,
        StoreError::Corrupt { .. } => Code::DataLoss,
        StoreError::Open { .. }
        | StoreError::Locked { .. }
        | StoreError::Newer { .. }
        | StoreError::Failed { .. }
        | StoreError::Closed => Code::Unavailable,
    }
}

fn code_of_authority(error: &AuthorityError) -> Code {
    match error {
        AuthorityError::Malformed(_) | AuthorityError::BadRequest(_) => Code::InvalidArgument,
        AuthorityError::TokenOfAnotherAuthority { .. }
        | AuthorityError::TokenUnknown { .. }
        | AuthorityError::TokenUsed { .. }
        | AuthorityError::TokenExpired { .. }
        | AuthorityError::TokenForAnotherName { .. }
        | AuthorityError::NotAMember { .. } => Code::PermissionDenied,
        AuthorityError::NameTaken { .. } => Code::AlreadyExists,
        AuthorityError::TooManyTokens(_) => Code::ResourceExhausted,
        AuthorityError::Store(error) => code_of_store(error),
        AuthorityError::Record(_) | AuthorityError::Damaged { .. } => Code::DataLoss,
        AuthorityError::Missing { .. }
        | AuthorityError::Exists { .. }
        | AuthorityError::File { .. }
        | AuthorityError::Signing(_) => Code::Internal,
    }
}

fn code_of_artifact(error: &ArtifactError) -> Code {
    match error {
        ArtifactError::Missing(_) => Code::NotFound,
        ArtifactError::TooLarge { .. } | ArtifactError::NoRoom { .. } => Code::ResourceExhausted,
        ArtifactError::Busy(_) => Code::Aborted,
        ArtifactError::WrongOffset { .. } => Code::OutOfRange,
        ArtifactError::WrongSize { .. } | ArtifactError::WrongDigest { .. } => Code::InvalidArgument,
        ArtifactError::Corrupt(_) => Code::DataLoss,
        ArtifactError::Io { .. } => Code::Internal,
    }
}

/// The message of an error and of everything beneath it.
pub(crate) fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
