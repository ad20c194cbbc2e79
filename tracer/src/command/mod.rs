//! The commands, one a file, and the live trace that three of them share.

pub mod diagnose;
pub mod doctor;
mod interrupt;
mod limits;
pub mod live;
mod overload;
mod pace;
pub mod replay;
pub mod run;
mod ticker;
mod tls_libraries;
pub mod trace;

use anyhow::Result;

use crate::{
    cli,
    findings::When,
    output::{
        Output,
        diagnosis::{NdjsonDiagnosis, TextDiagnosis},
        ndjson::Ndjson,
        text::Text,
    },
    stage::sink::Sink,
};

/// Where a trace's records go.
pub struct Opened {
    output: Box<dyn Output>,
    sink: Sink,
    /// When findings are told, if they are.
    findings: Option<When>,
}

/// Opens the output of a trace that the user asked for.
///
/// # Errors
/// If a file was asked for and cannot be made.
fn open_output(options: &cli::Output) -> Result<Opened> {
    let (sink, colour) = open(&options.to)?;
    let output: Box<dyn Output> = match options.to.format {
        cli::Format::Ndjson => Box::new(Ndjson::new(!options.no_exchanges)),
        cli::Format::Text => Box::new(Text::new(colour, options.verbose)),
    };
    let findings = (!options.no_exchanges && !options.no_findings).then_some(When::AtOnce);
    Ok(Opened { output, sink, findings })
}

/// Opens the output of a diagnosis that the user asked for.
///
/// # Errors
/// As [`open_output`].
fn open_diagnosis(options: &cli::Destination) -> Result<Opened> {
    let (sink, colour) = open(options)?;
    let output: Box<dyn Output> = match options.format {
        cli::Format::Ndjson => Box::<NdjsonDiagnosis>::default(),
        cli::Format::Text => Box::new(TextDiagnosis::new(colour)),
    };
    Ok(Opened { output, sink, findings: Some(When::AtTheEnd) })
}

/// The sink, and whether it takes colours.
fn open(options: &cli::Destination) -> Result<(Sink, bool)> {
    let sink = Sink::open(options.output.as_deref())?;
    let colour = sink.is_terminal() && colour_wanted(options);
    Ok((sink, colour))
}

/// The flag, or the variable of https://no-color.org, speaks against colour.
fn colour_wanted(options: &cli::Destination) -> bool {
    !options.no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Says something to the person at the terminal; data never goes this way.
fn talk(message: &str) {
    eprintln!("conntracer: {message}");
}
