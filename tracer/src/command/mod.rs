//! The commands, one a file, and the live trace that two of them share.

pub mod doctor;
pub mod live;
mod pace;
pub mod replay;
pub mod run;
mod ticker;
mod tls_libraries;
pub mod trace;

use anyhow::Result;

use crate::{
    cli,
    output::{Output, ndjson::Ndjson, text::Text},
    stage::sink::Sink,
};

/// Opens the output that the user asked for.
///
/// # Errors
/// If a file was asked for and cannot be made.
fn open_output(options: &cli::Output) -> Result<(Box<dyn Output>, Sink)> {
    let sink = Sink::open(options.output.as_deref())?;
    let output: Box<dyn Output> = match options.format {
        cli::Format::Ndjson => Box::new(Ndjson::new(!options.no_exchanges)),
        cli::Format::Text => {
            let colour = sink.is_terminal() && colour_wanted(options);
            Box::new(Text::new(colour, options.verbose))
        }
    };
    Ok((output, sink))
}

/// The flag, or the variable of https://no-color.org, speaks against colour.
fn colour_wanted(options: &cli::Output) -> bool {
    !options.no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Says something to the person at the terminal; data never goes this way.
fn talk(message: &str) {
    eprintln!("conntracer: {message}");
}
