// Sends a file to a whisper-xeon server as Go programs do, and prints the answers as one JSON object.
//
//	go run . http://127.0.0.1:8000/v1 clip.wav
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	openai "github.com/sashabaranov/go-openai"
)

type answers struct {
	Models []string `json:"models"`
	Text   string   `json:"text"`
	SRT    string   `json:"srt"`
	Words  []string `json:"words"`
}

func main() {
	found, err := ask(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func ask(url, file string) (answers, error) {
	config := openai.DefaultConfig("none")
	config.BaseURL = url
	client := openai.NewClientWithConfig(config)
	ctx := context.Background()
	var found answers
	models, err := client.ListModels(ctx)
	if err != nil {
		return found, err
	}
	for _, model := range models.Models {
		found.Models = append(found.Models, model.ID)
	}
	text, err := client.CreateTranscription(ctx, openai.AudioRequest{Model: openai.Whisper1, FilePath: file})
	if err != nil {
		return found, err
	}
	found.Text = text.Text
	srt, err := client.CreateTranscription(ctx, openai.AudioRequest{
		Model: openai.Whisper1, FilePath: file, Format: openai.AudioResponseFormatSRT,
	})
	if err != nil {
		return found, err
	}
	found.SRT = srt.Text
	// Its name in the form is timestamp_granularities[].
	verbose, err := client.CreateTranscription(ctx, openai.AudioRequest{
		Model: openai.Whisper1, FilePath: file, Format: openai.AudioResponseFormatVerboseJSON, Language: "en",
		TimestampGranularities: []openai.TranscriptionTimestampGranularity{
			openai.TranscriptionTimestampGranularityWord, openai.TranscriptionTimestampGranularitySegment,
		},
	})
	if err != nil {
		return found, err
	}
	for _, word := range verbose.Words {
		found.Words = append(found.Words, word.Word)
	}
	return found, nil
}
